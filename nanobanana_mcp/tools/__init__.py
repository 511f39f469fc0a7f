"""The tools: what an agent may ask for, and in which words."""
