"""Bags read, written and mended without ROS."""
