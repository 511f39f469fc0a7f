"""What a policy file may say and how a call is judged by it."""
