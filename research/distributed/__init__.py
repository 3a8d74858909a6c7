"""Several processes that train as one: how they join, agree, and notice that one is gone."""
