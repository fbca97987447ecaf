"""What the tuner remembers: who leads, one document for each configuration, and the audit, changed all together."""
