"""What backbones are worth to new domains: studies of transfer, measured and resumed."""
