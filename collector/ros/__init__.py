"""The Challenge's ROS interface: topics, messages, sessions, launch; rclpy only in function bodies."""
