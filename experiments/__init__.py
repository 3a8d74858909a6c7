"""What is asked: one module an experiment, each a Config and a build(config, facts)."""
