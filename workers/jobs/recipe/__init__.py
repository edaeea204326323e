"""The whole method as one order: plan, stages and the job that moves through them."""
