"""Traffic-flow theory: what flow, density and speed say of each other, congestion, and a simulated corridor."""
