"""Tests of the migrations, forwards and backwards."""
