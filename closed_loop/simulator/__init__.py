"""A kart on a rendered course: courses, cameras, vehicle, teacher and rollouts; no ROS below ``node``."""
