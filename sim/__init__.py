"""The RRM graph, its NumPy models and its cycle model: the truth that the RTL is held against."""
