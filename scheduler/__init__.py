"""The scheduler: reads, decides, applies, hands over."""
