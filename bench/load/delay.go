package main

import (
	"net"
	"sync"
	"time"
)

// flight is a chunk of bytes under way, and when it arrives. Without bytes it is the end of the direction.
type flight struct {
	bytes []byte
	lands time.Time
}

// delay forwards connections over a line with this round-trip time. The kernel accepts connections to this process at once, so the round
// trip of the TCP handshake is added to the client's first bytes.
func delay(listen, to string, roundTrip time.Duration) error {
	return accept(listen, func(client *net.TCPConn) {
		defer client.Close()
		opened := time.Now().Add(roundTrip)
		connection, err := net.Dial("tcp", to)
		if err != nil {
			return
		}
		server := connection.(*net.TCPConn)
		defer server.Close()
		var back sync.WaitGroup
		back.Add(1)
		go func() {
			defer back.Done()
			fly(server, client, opened, roundTrip/2)
		}()
		fly(client, server, opened, roundTrip/2)
		back.Wait()
	})
}

// fly copies one direction of a connection. Bytes leave at `opened` at the earliest, and take `oneWay`.
func fly(from, to *net.TCPConn, opened time.Time, oneWay time.Duration) {
	line := make(chan flight, 1024)
	go func() {
		defer close(line)
		buffer := make([]byte, piece)
		for {
			n, err := from.Read(buffer)
			leaves := time.Now()
			if leaves.Before(opened) {
				leaves = opened
			}
			if n > 0 {
				line <- flight{append([]byte(nil), buffer[:n]...), leaves.Add(oneWay)}
			}
			if err != nil {
				line <- flight{nil, leaves.Add(oneWay)}
				return
			}
		}
	}()
	for f := range line {
		time.Sleep(time.Until(f.lands))
		if len(f.bytes) == 0 {
			_ = to.CloseWrite()
		} else if _, err := to.Write(f.bytes); err != nil {
			_ = from.CloseRead() // the reader above ends; the rest of the line is thrown away
		}
	}
}
