"""What needs action in a project: each problem with what happens, when it is tried again, and the button that helps."""
