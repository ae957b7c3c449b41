"""Maven coordinates to jars, as Spark's own resolution at start would find them."""
