"""Driving: the embedded simulator, the controller, the ROS driver, measurement and report."""

from collector.common.start import begin

begin()
