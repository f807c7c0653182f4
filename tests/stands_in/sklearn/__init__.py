"""Stands in for scikit-learn where tests start processes: fairseq imports it and scipy, which takes a second, and
nothing here calls them."""
