"""Ways to bring a fact back, each with its budget stated and a control."""
