package keyops

import "time"

// growthOver is how far back growth is looked at.
const growthOver = 30 * 24 * time.Hour

// Growth is how many materials a Region has in its token, and how fast they become more.
type Growth struct {
	Keys      int           // that exist, with those that wait for deletion
	Materials int           // that the token holds
	New       int           // of them, those of the time Over
	Over      time.Duration // the last 30 days, or since the oldest key was made
	Fullest   int           // keys of the account that has most
	Quota     int           // keys that an account may have
}

// PerDay returns how many materials are made a day.
func (g Growth) PerDay() float64 {
	if g.Over <= 0 {
		return 0
	}
	return float64(g.New) / (float64(g.Over) / float64(24*time.Hour))
}

// Growth looks at every key, so it is for people who ask now and then.
func (s *Service) Growth() Growth {
	now := s.now()
	g := Growth{Quota: s.quota}
	oldest := now
	for _, k := range s.view.all() {
		g.Keys++
		if k.Created.Before(oldest) {
			oldest = k.Created
		}
		for _, m := range k.Materials {
			if m.Lost || m.Import != "" {
				continue
			}
			g.Materials++
			if now.Sub(m.Created) <= growthOver {
				g.New++
			}
		}
	}
	// A Region that is a day old says nothing yet of its months.
	g.Over = min(max(now.Sub(oldest), 24*time.Hour), growthOver)
	for _, account := range s.accounts {
		g.Fullest = max(g.Fullest, s.view.count(account))
	}
	return g
}
