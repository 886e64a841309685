"""What an operation is and what may happen to it: values and rules, standard library only."""
