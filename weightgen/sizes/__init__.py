"""What a recipe says of sizes: the options that families have for them, and the sizes of axis groups for all others."""
