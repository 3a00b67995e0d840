"""Plane geometry: poses, curvature, splines, the pinhole camera."""
