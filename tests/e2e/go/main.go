// franz-go against a broker: client_test_program HOST:PORT CASE
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

var address string

func fail(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", arguments...)
	os.Exit(1)
}

func must(err error, what string) {
	if err != nil {
		fail("%s: %v", what, err)
	}
}

func expect[T comparable](got, wanted T, what string) {
	if got != wanted {
		fail("%s: got %v, expected %v", what, got, wanted)
	}
}

func eventually(condition func() bool, what string) {
	end := time.Now().Add(30 * time.Second)
	for !condition() {
		if time.Now().After(end) {
			fail("waited 30 s for %s", what)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func fresh(prefix string) string {
	return fmt.Sprintf("%s-%08x", prefix, rand.Uint32())
}

func client(options ...kgo.Opt) *kgo.Client {
	made, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(address)}, options...)...)
	must(err, "client")
	return made
}

func makeTopic(ctx context.Context, partitions int32) string {
	admin := kadm.NewClient(client())
	defer admin.Close()
	name := fresh("franz")
	_, err := admin.CreateTopic(ctx, partitions, 1, nil, name)
	must(err, "create topic")
	return name
}

func sample(topic string, count int) []*kgo.Record {
	chance := rand.New(rand.NewSource(3))
	var records []*kgo.Record
	for i := 0; i < count; i++ {
		r := &kgo.Record{Topic: topic, Timestamp: time.UnixMilli(1_700_000_000_000 + int64(i))}
		if i%5 != 0 {
			r.Key = []byte(fmt.Sprintf("key-%d", i))
		}
		switch {
		case i == count/2:
			r.Value = make([]byte, 900<<10)
			chance.Read(r.Value)
		case i%11 == 0:
			r.Value = []byte{}
		case i%7 != 0:
			r.Value = bytes.Repeat([]byte(fmt.Sprintf("value %d ", i)), i%60)
			if len(r.Value) == 0 {
				r.Value = []byte("v")
			}
		}
		if i%4 == 0 {
			r.Headers = []kgo.RecordHeader{{Key: "number", Value: []byte{byte(i)}}, {Key: "none"}}
		}
		records = append(records, r)
	}
	return records
}

func produceAll(ctx context.Context, to *kgo.Client, records []*kgo.Record) {
	for _, result := range to.ProduceSync(ctx, records...) {
		must(result.Err, "produce")
	}
}

func readCount(ctx context.Context, from *kgo.Client, count int) []*kgo.Record {
	var got []*kgo.Record
	for len(got) < count {
		fetches := from.PollFetches(ctx)
		for _, problem := range fetches.Errors() {
			fail("fetch of %s/%d: %v", problem.Topic, problem.Partition, problem.Err)
		}
		got = append(got, fetches.Records()...)
	}
	return got
}

func roundtrip(ctx context.Context) {
	codecs := []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(),
		kgo.Lz4Compression(), kgo.ZstdCompression()}
	for number, codec := range codecs {
		topic := makeTopic(ctx, 1)
		to := client(kgo.ProducerBatchCompression(codec), kgo.RequiredAcks(kgo.AllISRAcks()))
		records := sample(topic, 1000)
		produceAll(ctx, to, records)
		to.Close()
		from := client(kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		for i, got := range readCount(ctx, from, 1000) {
			sent := records[i]
			what := fmt.Sprintf("codec %d record %d", number, i)
			expect(got.Offset, int64(i), what+" offset")
			expect(sent.Offset, int64(i), what+" acknowledged offset")
			expect(bytes.Equal(got.Key, sent.Key) && (got.Key == nil) == (sent.Key == nil), true, what+" key")
			expect(bytes.Equal(got.Value, sent.Value) && (got.Value == nil) == (sent.Value == nil), true, what+" value")
			expect(len(got.Headers), len(sent.Headers), what+" headers")
			for h := range got.Headers {
				expect(got.Headers[h].Key, sent.Headers[h].Key, what+" header")
				expect(bytes.Equal(got.Headers[h].Value, sent.Headers[h].Value), true, what+" header value")
			}
			expect(got.Timestamp.UnixMilli(), sent.Timestamp.UnixMilli(), what+" timestamp")
		}
		from.Close()
	}
}

// member is one consumer of a group; what it owns and has seen is kept under a lock.
type member struct {
	from  *kgo.Client
	done  chan struct{}
	mutex *sync.Mutex
	owned map[int32]bool
}

func newMember(ctx context.Context, group, topic string, balancer kgo.GroupBalancer, mutex *sync.Mutex,
	seen map[string]bool) *member {
	m := &member{done: make(chan struct{}), mutex: mutex, owned: map[int32]bool{}}
	set := func(owns bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
			mutex.Lock()
			defer mutex.Unlock()
			for _, p := range parts[topic] {
				if owns {
					m.owned[p] = true
				} else {
					delete(m.owned, p)
				}
			}
		}
	}
	m.from = client(kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.Balancers(balancer),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.SessionTimeout(6*time.Second),
		kgo.HeartbeatInterval(500*time.Millisecond), kgo.DisableAutoCommit(),
		kgo.OnPartitionsAssigned(set(true)), kgo.OnPartitionsRevoked(set(false)), kgo.OnPartitionsLost(set(false)))
	go func() {
		defer close(m.done)
		for {
			fetches := m.from.PollFetches(ctx)
			if fetches.IsClientClosed() || ctx.Err() != nil {
				return
			}
			mutex.Lock()
			fetches.EachRecord(func(r *kgo.Record) { seen[string(r.Value)] = true })
			mutex.Unlock()
			_ = m.from.CommitUncommittedOffsets(ctx) // fails in a rebalance: the next owner reads again
		}
	}()
	return m
}

func (m *member) owns() int {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return len(m.owned)
}

func (m *member) end() {
	m.from.Close()
	<-m.done
}

func sendNumbers(ctx context.Context, topic string, first, last int) {
	to := client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	defer to.Close()
	var records []*kgo.Record
	for i := first; i < last; i++ {
		records = append(records, &kgo.Record{Topic: topic, Partition: int32(i % 6), Value: []byte(fmt.Sprint(i))})
	}
	produceAll(ctx, to, records)
}

func group(ctx context.Context) {
	for _, balancer := range []kgo.GroupBalancer{kgo.RangeBalancer(), kgo.CooperativeStickyBalancer()} {
		topic, name := makeTopic(ctx, 6), fresh("franz-group")
		var mutex sync.Mutex
		seen := map[string]bool{}
		count := func() int {
			mutex.Lock()
			defer mutex.Unlock()
			return len(seen)
		}
		one := newMember(ctx, name, topic, balancer, &mutex, seen)
		eventually(func() bool { return one.owns() == 6 }, "the first member to own everything")
		sendNumbers(ctx, topic, 0, 120)
		two := newMember(ctx, name, topic, balancer, &mutex, seen)
		eventually(func() bool { return one.owns() == 3 && two.owns() == 3 }, "the members to share")
		sendNumbers(ctx, topic, 120, 240)
		eventually(func() bool { return count() == 240 }, "all records to be seen")
		one.end()
		eventually(func() bool { return two.owns() == 6 }, "the second member to own everything")
		sendNumbers(ctx, topic, 240, 300)
		eventually(func() bool { return count() == 300 }, "all records to be seen by the second member")
		time.Sleep(300 * time.Millisecond) // its commit
		two.end()
		sendNumbers(ctx, topic, 300, 306)
		again := client(kgo.ConsumerGroup(name), kgo.ConsumeTopics(topic), kgo.Balancers(balancer),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		for _, r := range readCount(ctx, again, 6) {
			if r.Offset < 50 {
				fail("read offset %d of partition %d again after resuming", r.Offset, r.Partition)
			}
		}
		again.Close()
	}
}

func admin(ctx context.Context) {
	to := client()
	a := kadm.NewClient(to)
	defer a.Close()
	meta, err := a.BrokerMetadata(ctx)
	must(err, "metadata")
	expect(len(meta.Brokers) > 0 && meta.Cluster != "", true, "cluster")
	topic := fresh("franz")
	hour := "3600000"
	_, err = a.CreateTopic(ctx, 2, 1, map[string]*string{"retention.ms": &hour}, topic)
	must(err, "create topic")
	_, err = a.CreateTopic(ctx, 2, 1, nil, topic)
	expect(errors.Is(err, kerr.TopicAlreadyExists), true, "created twice")
	parts, err := a.UpdatePartitions(ctx, 4, topic)
	must(err, "create partitions")
	must(parts.Error(), "create partitions")
	eventually(func() bool {
		topics, err := a.ListTopics(ctx, topic)
		return err == nil && len(topics[topic].Partitions) == 4
	}, "four partitions")
	config := func(key string) string {
		found, err := a.DescribeTopicConfigs(ctx, topic)
		must(err, "describe configs")
		for _, c := range found[0].Configs {
			if c.Key == key {
				return c.MaybeValue()
			}
		}
		return ""
	}
	expect(config("retention.ms"), hour, "retention.ms")
	two := "7200000"
	_, err = a.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: &two}}, topic)
	must(err, "alter configs")
	eventually(func() bool { return config("retention.ms") == two }, "the new retention.ms")
	for i := 0; i < 20; i++ {
		r := &kgo.Record{Topic: topic, Value: []byte("x"), Key: []byte("one key"),
			Timestamp: time.UnixMilli(1_700_000_000_000 + int64(i))}
		produceAll(ctx, to, []*kgo.Record{r})
	}
	ends, err := a.ListEndOffsets(ctx, topic)
	must(err, "end offsets")
	var part int32
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			part = o.Partition
			expect(o.Offset, 20, "end offset")
		}
	})
	listed := func(found kadm.ListedOffsets, err error) int64 {
		must(err, "list offsets")
		o, _ := found.Lookup(topic, part)
		must(o.Err, "list offsets")
		return o.Offset
	}
	expect(listed(a.ListOffsetsAfterMilli(ctx, 1_700_000_000_007, topic)), 7, "offset for a time")
	expect(listed(a.ListMaxTimestampOffsets(ctx, topic)), 19, "offset of the largest timestamp")
	deleted, err := a.DeleteRecords(ctx, kadm.Offsets{topic: {part: {Topic: topic, Partition: part, At: 5}}})
	must(err, "delete records")
	must(deleted.Error(), "delete records")
	expect(listed(a.ListStartOffsets(ctx, topic)), 5, "earliest after deleting")
	dirs, err := a.DescribeAllLogDirs(ctx, nil)
	must(err, "log dirs")
	dirs.Each(func(d kadm.DescribedLogDir) { must(d.Err, "log dirs") })
	producers, err := a.DescribeProducers(ctx, kadm.TopicsSet{topic: {part: {}}})
	must(err, "describe producers")
	expect(len(producers[topic].Partitions[part].ActiveProducers), 1, "active producers")
	groupsAdmin(ctx, a, topic, part)
	gone, err := a.DeleteTopics(ctx, topic)
	must(err, "delete topic")
	must(gone.Error(), "delete topic")
	eventually(func() bool {
		topics, err := a.ListTopics(ctx, topic)
		return err == nil && topics[topic].Err != nil
	}, "the topic to be gone")
}

func groupsAdmin(ctx context.Context, a *kadm.Client, topic string, part int32) {
	name := fresh("franz-group")
	from := client(kgo.ConsumerGroup(name), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	expect(len(readCount(ctx, from, 15)), 15, "records read")
	must(from.CommitUncommittedOffsets(ctx), "commit")
	groups, err := a.ListGroups(ctx)
	must(err, "list groups")
	_, there := groups[name]
	expect(there, true, "listed")
	described, err := a.DescribeGroups(ctx, name)
	must(err, "describe groups")
	expect(described[name].State, "Stable", "state")
	expect(len(described[name].Members), 1, "members")
	from.LeaveGroup()
	from.Close()
	offsets, err := a.FetchOffsets(ctx, name)
	must(err, "fetch offsets")
	committed, _ := offsets.Lookup(topic, part)
	expect(committed.At, 20, "committed")
	must(a.CommitAllOffsets(ctx, name, kadm.Offsets{topic: {part: {Topic: topic, Partition: part, At: 7,
		LeaderEpoch: -1}}}), "alter offsets")
	removed, err := a.DeleteOffsets(ctx, name, kadm.TopicsSet{topic: {part: {}}})
	must(err, "delete offsets")
	must(removed.Error(), "delete offsets")
	offsets, err = a.FetchOffsets(ctx, name)
	must(err, "fetch offsets")
	_, there = offsets.Lookup(topic, part)
	expect(there, false, "offset after deleting it")
	_, err = a.DeleteGroup(ctx, name)
	must(err, "delete group")
	_, err = a.DeleteGroup(ctx, name)
	expect(errors.Is(err, kerr.GroupIDNotFound), true, "deleted twice")
}

func main() {
	address = os.Args[1]
	cases := map[string]func(context.Context){"roundtrip": roundtrip, "group": group, "admin": admin}
	ctx, cancel := context.WithTimeout(context.Background(), 110*time.Second)
	defer cancel()
	cases[os.Args[2]](ctx)
}
