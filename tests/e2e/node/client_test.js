// kafkajs: client_test.js HOST:PORT CASE
'use strict'
const assert = require('node:assert')
const crypto = require('node:crypto')
const { Kafka, CompressionTypes, CompressionCodecs, ConfigResourceTypes, logLevel } = require('kafkajs')
const lz4 = require('lz4-napi')

const [, , broker, test] = process.argv
const kafka = new Kafka({ clientId: 'kafkajs-test', brokers: [broker], logLevel: logLevel.NOTHING })
const admin = kafka.admin()

CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy')
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async encoder => lz4.compressFrameSync(encoder.buffer),
  decompress: async buffer => lz4.decompressFrameSync(buffer)
})
const zstd = new Promise(resolve => require('zstd-codec').ZstdCodec.run(z => resolve(new z.Simple())))
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async encoder => Buffer.from((await zstd).compress(encoder.buffer)),
  decompress: async buffer => Buffer.from((await zstd).decompress(buffer))
})

const fresh = prefix => `${prefix}-${crypto.randomBytes(5).toString('hex')}`
const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))

async function eventually (condition, what) {
  const end = Date.now() + 30000
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`waited 30 s for ${what}`)
    await sleep(50)
  }
}

async function makeTopic (partitions, configEntries = []) {
  const topic = fresh('kafkajs')
  await admin.createTopics({ waitForLeaders: true, topics: [{ topic, numPartitions: partitions, configEntries }] })
  return topic
}

async function send (topic, messages, options = {}) {
  const producer = kafka.producer({ allowAutoTopicCreation: false, idempotent: !!options.idempotent })
  await producer.connect()
  const answers = []
  for (let i = 0; i < messages.length; i += 250) {
    answers.push(...await producer.send({ topic, acks: -1, compression: options.compression,
      messages: messages.slice(i, i + 250) }))
  }
  await producer.disconnect()
  return answers
}

// Reads from the start until count messages came; a group of its own each time.
async function readAll (topic, count, groupId = fresh('kafkajs-group')) {
  const consumer = kafka.consumer({ groupId, sessionTimeout: 10000, heartbeatInterval: 500,
    maxBytesPerPartition: 4 << 20 })
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  const got = []
  await consumer.run({ eachMessage: async ({ partition, message }) => { got.push({ partition, ...message }) } })
  await eventually(() => got.length >= count, `${count} messages`)
  await consumer.disconnect()
  return got
}

function sample (count) {
  const messages = []
  for (let i = 0; i < count; i++) {
    let value = i % 11 === 0 ? '' : i % 7 === 0 ? null : `value ${i} `.repeat(i % 60)
    if (i === count / 2) value = crypto.randomBytes(900 << 10)
    messages.push({
      key: i % 5 === 0 ? null : `key-${i}`,
      value,
      partition: 0,
      timestamp: String(1700000000000 + i),
      headers: i % 4 === 0 ? { number: String(i), empty: '' } : {}
    })
  }
  return messages
}

const bytes = value => value === null ? null : Buffer.from(value).toString('hex')

async function roundtrip () {
  for (const [name, compression] of Object.entries(CompressionTypes)) {
    const topic = await makeTopic(1)
    const sent = sample(500)
    // The large message travels alone: this client makes one batch of what it is given.
    const large = sent.splice(250, 1)[0]
    const offsets = (await send(topic, sent, { compression, idempotent: name === 'GZIP' })).map(a => a.baseOffset)
    assert.deepStrictEqual(offsets, ['0', '250'], `${name} offsets`)
    assert.strictEqual((await send(topic, [large], { compression }))[0].baseOffset, '499', `${name} offset of the large`)
    sent.push(large)
    const got = await readAll(topic, 500)
    for (let i = 0; i < 500; i++) {
      assert.strictEqual(got[i].offset, String(i), `${name} offset`)
      assert.strictEqual(bytes(got[i].key), bytes(sent[i].key), `${name} key ${i}`)
      assert.strictEqual(bytes(got[i].value), bytes(sent[i].value), `${name} value ${i}`)
      assert.strictEqual(got[i].timestamp, sent[i].timestamp, `${name} timestamp ${i}`)
      const headers = Object.fromEntries(Object.entries(got[i].headers).map(([k, v]) => [k, v.toString()]))
      assert.deepStrictEqual(headers, { ...sent[i].headers }, `${name} headers ${i}`)
    }
  }
}

async function startMember (groupId, topic, seen) {
  const consumer = kafka.consumer({ groupId, sessionTimeout: 10000, heartbeatInterval: 300, rebalanceTimeout: 10000 })
  const member = { consumer, owned: new Set() }
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    member.owned = new Set(payload.memberAssignment[topic] || [])
  })
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  await consumer.run({ autoCommitInterval: 200, eachMessage: async ({ message }) => { seen.add(message.value.toString()) } })
  return member
}

const numbers = (first, last, partitions) => Array.from({ length: last - first },
  (_, i) => ({ value: String(first + i), partition: (first + i) % partitions }))

async function group () {
  const topic = await makeTopic(4)
  const groupId = fresh('kafkajs-group')
  const seen = new Set()
  const one = await startMember(groupId, topic, seen)
  await eventually(() => one.owned.size === 4, 'the first member to own everything')
  await send(topic, numbers(0, 80, 4))
  const two = await startMember(groupId, topic, seen)
  await eventually(() => one.owned.size === 2 && two.owned.size === 2, 'the members to share')
  await send(topic, numbers(80, 160, 4))
  await eventually(() => seen.size === 160, 'all messages to be seen')
  await one.consumer.disconnect()
  await eventually(() => two.owned.size === 4, 'the second member to own everything')
  await send(topic, numbers(160, 200, 4))
  await eventually(() => seen.size === 200, 'all messages to be seen by the second member')
  await sleep(500)
  await two.consumer.disconnect()
  await send(topic, numbers(200, 204, 4))
  const rest = (await readAll(topic, 4, groupId)).map(m => Number(m.value.toString())).sort()
  assert.deepStrictEqual(rest, [200, 201, 202, 203], 'messages after resuming')
}

async function adminCycle () {
  const cluster = await admin.describeCluster()
  assert.ok(cluster.brokers.length > 0 && cluster.clusterId)
  const topic = await makeTopic(2, [{ name: 'retention.ms', value: '3600000' }])
  assert.strictEqual(await admin.createTopics({ topics: [{ topic }] }), false, 'created twice')
  assert.ok((await admin.listTopics()).includes(topic))
  await admin.createPartitions({ topicPartitions: [{ topic, count: 3 }] })
  await eventually(async () => (await admin.fetchTopicMetadata({ topics: [topic] })).topics[0].partitions.length === 3,
    'three partitions')
  const resource = { type: ConfigResourceTypes.TOPIC, name: topic }
  const retention = async () => (await admin.describeConfigs({ resources: [{ ...resource, configNames: ['retention.ms'] }],
    includeSynonyms: false })).resources[0].configEntries[0].configValue
  assert.strictEqual(await retention(), '3600000')
  await admin.alterConfigs({ validateOnly: false, resources: [{ ...resource,
    configEntries: [{ name: 'retention.ms', value: '7200000' }] }] })
  await eventually(async () => await retention() === '7200000', 'the new retention.ms')
  const messages = Array.from({ length: 20 }, (_, i) => ({ value: 'x', partition: 1, timestamp: String(1700000000000 + i) }))
  await send(topic, messages)
  const end = (await admin.fetchTopicOffsets(topic)).find(p => p.partition === 1)
  assert.deepStrictEqual([end.low, end.high], ['0', '20'])
  const timed = await admin.fetchTopicOffsetsByTimestamp(topic, 1700000000000)
  assert.strictEqual(timed.find(p => p.partition === 1).offset, '0')
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 1, offset: '5' }] })
  assert.strictEqual((await admin.fetchTopicOffsets(topic)).find(p => p.partition === 1).low, '5')
  await groupsAdmin(topic)
  await admin.deleteTopics({ topics: [topic] })
  await eventually(async () => !(await admin.listTopics()).includes(topic), 'the topic to be gone')
}

async function groupsAdmin (topic) {
  const groupId = fresh('kafkajs-group')
  const seen = new Set()
  const member = await startMember(groupId, topic, seen)
  await eventually(() => member.owned.size === 3 && seen.size > 0, 'the member to read')
  assert.ok((await admin.listGroups()).groups.some(g => g.groupId === groupId), 'listed')
  await eventually(async () => (await admin.describeGroups([groupId])).groups[0].state === 'Stable', 'a stable group')
  await sleep(500)
  await member.consumer.disconnect()
  const committed = async () => (await admin.fetchOffsets({ groupId, topics: [topic] }))[0].partitions
    .find(p => p.partition === 1).offset
  assert.strictEqual(await committed(), '20', 'committed')
  await admin.setOffsets({ groupId, topic, partitions: [{ partition: 1, offset: '7' }] })
  assert.strictEqual(await committed(), '7', 'altered')
  await admin.deleteGroups([groupId])
  await assert.rejects(admin.deleteGroups([groupId]), 'deleted twice')
}

async function main () {
  await admin.connect()
  await { roundtrip, group, admin: adminCycle }[test]()
  await admin.disconnect()
}

process.env.KAFKAJS_NO_PARTITIONER_WARNING = '1'
main().then(() => process.exit(0), problem => {
  console.error(problem)
  process.exit(1)
})
