"""The simulation: real decisions in virtual time, and the checker that judges what came of them."""
