"""One kart's plan without a wait: fixed shapes, joined products, recorded launches."""
