"""The embedded simulator: a kart with a camera on a rendered course, in AWSIM's place; no ROS below ``node``."""
