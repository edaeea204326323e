"""The whole method as one job: plan, stages and the job that moves through them."""
