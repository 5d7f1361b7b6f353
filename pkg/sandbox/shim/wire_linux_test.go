package shim

import (
	"errors"
	"io"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"
)

// filled sets every field that it can reach, so that one that the wire forgets is missing afterwards.
func filled(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		filled(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			filled(v.Field(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			filled(v.Index(i))
		}
	case reflect.String:
		v.SetString("text of\x00 " + v.Type().String())
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int:
		v.SetInt(300)
	case reflect.Uint8, reflect.Uint32, reflect.Uintptr:
		v.SetUint(200)
	default:
		panic(v.Kind())
	}
}

// keptPlan has all that the keeper is told.
func keptPlan() *Plan {
	var p Plan
	filled(reflect.ValueOf(&p).Elem())
	p.Mounts, p.Home, p.Ports, p.IPv6, p.Listen6 = nil, nil, nil, false, false // only namespaces have these
	return &p
}

func TestPlanTravelsWhole(t *testing.T) {
	plan := keptPlan()
	for _, want := range []*Plan{plan, {Confine: &Confine{}}} {
		if got, err := DecodePlan(want.Encode()); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v\nbecame %+v, %v", want, got, err)
		}
	}
}

// What somebody said before the end is heard, though there was something that he has not read.
func TestLastWordsAreHeard(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	for i, text := range []string{"a plan", "last words"} {
		if err := SendPacket(pair[i], []byte(text), nil); err != nil {
			t.Fatal(err)
		}
	}
	unix.Close(pair[1])
	if packet, _, err := ReceivePacket(pair[0], MaxPacket); err != nil || string(packet) != "last words" {
		t.Errorf("%q, %v", packet, err)
	}
	if packet, _, err := ReceivePacket(pair[0], MaxPacket); !errors.Is(err, io.EOF) {
		t.Errorf("%q, %v", packet, err)
	}
}

func TestMessageTravelsWhole(t *testing.T) {
	var want Message
	filled(reflect.ValueOf(&want).Elem())
	if got, err := ParseMessage(want.Packet()); err != nil || got != want {
		t.Errorf("%+v became %+v, %v", want, got, err)
	}
}

func FuzzDecodePlan(f *testing.F) {
	f.Add(keptPlan().Encode())
	f.Add((&Plan{Confine: &Confine{}}).Encode()[1:])
	f.Fuzz(func(_ *testing.T, data []byte) {
		_, _ = DecodePlan(data)
		_, _ = ParseMessage(data)
	})
}
