"""castnet tells defective castings from good ones in photographs."""
