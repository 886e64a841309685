"""The tests of Milepost."""
