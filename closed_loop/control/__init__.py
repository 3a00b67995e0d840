"""The driver, free of ROS: buffers, controller, safety monitor."""
