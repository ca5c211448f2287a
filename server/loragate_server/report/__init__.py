"""A recorded verdict as a page for people who are no engineers."""
