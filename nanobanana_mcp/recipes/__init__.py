"""Pictures that take more than one plain call: made of the model's answers and exact work on pixels."""
