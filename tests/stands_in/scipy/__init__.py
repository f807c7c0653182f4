"""Stands in for scipy, as its neighbour does for scikit-learn."""
