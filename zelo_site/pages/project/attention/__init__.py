"""Problems of a project that need action: each with its effect, the next retry, and the button that helps."""
