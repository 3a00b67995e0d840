"""Drive the kart with a finetuned model: ``ros2 launch closed_loop drive.launch.py adapter:=runs/lora/adapter``."""

from launch import LaunchDescription

from closed_loop.ros.config import DRIVE_NODE, EVALUATOR_BESIDE, SIMULATOR_BESIDE, DriveConfig
from collector.ros.launch_description import describe


def generate_launch_description() -> LaunchDescription:
    """Called by ``ros2 launch``; ``--show-args`` lists the arguments."""
    return describe(DriveConfig, DRIVE_NODE, SIMULATOR_BESIDE, EVALUATOR_BESIDE)
