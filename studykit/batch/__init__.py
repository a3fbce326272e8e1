"""Grids of notebook executions: planned, checked, executed, shown. Torch-free."""
