package main

import (
	"io"
	"net"
)

// A piece of the line: 2 ms at 8 MB/s.
const piece = 16 << 10

func shape(listen, to string, rate float64, each bool) error {
	all := &pace{rate: rate}
	return accept(listen, func(client *net.TCPConn) {
		line := all
		if each {
			line = &pace{rate: rate}
		}
		forward(client, to, line)
	})
}

func accept(listen string, serve func(client *net.TCPConn)) error {
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	for {
		client, err := listener.Accept()
		if err != nil {
			return err
		}
		go serve(client.(*net.TCPConn))
	}
}

func forward(client *net.TCPConn, to string, line *pace) {
	defer client.Close()
	connection, err := net.Dial("tcp", to)
	if err != nil {
		return // the client sees its line cut, as it would elsewhere
	}
	server := connection.(*net.TCPConn)
	defer server.Close()
	go func() {
		_, _ = io.Copy(server, client) // whichever way it ends, the other direction tells
		_ = server.CloseWrite()
	}()
	// What has been sent but not taken must not lie in buffers of this process's making.
	_ = server.SetReadBuffer(64 << 10)
	buffer := make([]byte, piece)
	for {
		n, err := server.Read(buffer)
		if n > 0 {
			line.wait(n)
			if _, err := client.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
