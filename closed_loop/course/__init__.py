"""Courses: reference lines with widths, made or read from files."""
