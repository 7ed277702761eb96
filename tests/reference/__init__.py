"""What the documents of early 2025 show, run against agentflow. README.md lists every block and its test."""
