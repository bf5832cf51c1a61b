"""Instructions before any response exists: reading, filtering, labelling and sampling them."""
