"""The API's resources, one file a group; each method is one operation."""
