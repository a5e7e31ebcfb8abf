// Command delay joins a network device and a bridge by a wire that takes its time, for kernels without netem:
// `delay DEVICE BRIDGE MILLISECONDS`. Frames of DEVICE come out of a TAP device that it puts on BRIDGE, and the other way
// round, each after the delay and in order. Prints "up" when frames pass, and ends when it is killed.
package main

import (
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

const (
	tunSetIff       = 0x400454ca
	tunSetOffload   = 0x400454d0
	tunFCsum        = 0x01
	tunFTso4        = 0x02
	tunFTso6        = 0x04
	tunFTsoEcn      = 0x08
	tunFUso4        = 0x20
	tunFUso6        = 0x40
	iffTap          = 0x0002
	iffNoPi         = 0x1000
	iffVnetHdr      = 0x4000
	solPacket       = 263
	vnetHdr         = 15
	ignoreOutgoing  = 23
	addMembership   = 1
	promiscuous     = 1
	soRcvbufForce   = 33
	maxFrame        = 66 * 1024
	framesUnderWay  = 65536
	receiveBufferMB = 32
)

type frame struct {
	at    time.Time
	bytes []byte
}

func main() {
	device, bridge := os.Args[1], os.Args[2]
	ms, err := strconv.Atoi(os.Args[3])
	check(err)
	delay := time.Duration(ms) * time.Millisecond
	wire := openWire(device)
	tap, name := openTap()
	run("ip", "link", "set", device, "nomaster", "up")
	run("ip", "link", "set", name, "master", bridge, "up")
	go carry(wire, tap, delay)
	go carry(tap, wire, delay)
	fmt.Println("up")
	select {}
}

// carry takes frames, each with its header of offloads, from one end to the other.
func carry(from, to int, delay time.Duration) {
	queue := make(chan frame, framesUnderWay)
	go func() {
		for f := range queue {
			time.Sleep(time.Until(f.at))
			// A device that takes no more drops, as wires do.
			_, _ = syscall.Write(to, f.bytes)
		}
	}()
	buffer := make([]byte, maxFrame)
	for {
		n, err := syscall.Read(from, buffer)
		if err == syscall.EINTR || err == syscall.ENETDOWN {
			continue
		}
		check(err)
		queue <- frame{time.Now().Add(delay), append([]byte(nil), buffer[:n]...)}
	}
}

func openWire(device string) int {
	link, err := net.InterfaceByName(device)
	check(err)
	protocol := int(htons(syscall.ETH_P_ALL))
	fd, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW, protocol)
	check(err)
	check(syscall.SetsockoptInt(fd, solPacket, vnetHdr, 1))
	check(syscall.SetsockoptInt(fd, solPacket, ignoreOutgoing, 1))
	check(syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, soRcvbufForce, receiveBufferMB<<20))
	check(syscall.Bind(fd, &syscall.SockaddrLinklayer{Protocol: htons(syscall.ETH_P_ALL), Ifindex: link.Index}))
	membership := struct {
		index   int32
		kind    uint16
		length  uint16
		address [8]byte
	}{index: int32(link.Index), kind: promiscuous}
	_, _, errno := syscall.Syscall6(syscall.SYS_SETSOCKOPT, uintptr(fd), solPacket, addMembership,
		uintptr(unsafe.Pointer(&membership)), unsafe.Sizeof(membership), 0)
	if errno != 0 {
		check(errno)
	}
	return fd
}

func openTap() (int, string) {
	fd, err := syscall.Open("/dev/net/tun", syscall.O_RDWR, 0)
	check(err)
	request := struct {
		name  [16]byte
		flags uint16
		_     [22]byte
	}{flags: iffTap | iffNoPi | iffVnetHdr}
	control(fd, tunSetIff, uintptr(unsafe.Pointer(&request)))
	// What the host's device leaves to be cut and summed later may pass as it is.
	all := uintptr(tunFCsum | tunFTso4 | tunFTso6 | tunFTsoEcn)
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), tunSetOffload, all|tunFUso4|tunFUso6); errno != 0 {
		control(fd, tunSetOffload, all)
	}
	end := 0
	for request.name[end] != 0 {
		end++
	}
	return fd, string(request.name[:end])
}

func control(fd int, number, value uintptr) {
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), number, value); errno != 0 {
		check(errno)
	}
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

func run(name string, args ...string) {
	if said, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		log.Fatalf("%s %v: %v: %s", name, args, err, said)
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
