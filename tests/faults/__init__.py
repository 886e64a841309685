"""What is left when calls race and servers die. The large sizes run with `make faults`."""
