"""What every room uses: errors, files, run folders, plots."""
