package main

import (
	"sync"
	"time"
)

// pace lets bytes through at a rate, and after a pause not more than the burst at once.
type pace struct {
	rate  float64 // bytes a second
	mutex sync.Mutex
	next  time.Time
}

const burst = 20 * time.Millisecond

func (p *pace) wait(bytes int) {
	p.mutex.Lock()
	now := time.Now()
	if earliest := now.Add(-burst); p.next.Before(earliest) {
		p.next = earliest
	}
	p.next = p.next.Add(time.Duration(float64(bytes) / p.rate * float64(time.Second)))
	pause := p.next.Sub(now)
	p.mutex.Unlock()
	if pause > 0 {
		time.Sleep(pause)
	}
}
