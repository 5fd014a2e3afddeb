"""Servers that come in a wheel and run as supervised children. Standard library only: it starts before all else."""
