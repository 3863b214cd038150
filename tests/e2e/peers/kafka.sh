#!/bin/bash
# Apache Kafka as a peer: the broker to measure against, and its command-line tools.
#
#   kafka.sh install                      fetch the jars through Maven, write the tool scripts
#   kafka.sh start [OPTIONS]              start a single node (or leave the running one); prints host:port
#   kafka.sh stop  [--name N] [--fresh]   stop it; --fresh drops its data as well
#   kafka.sh pid   [--name N]             the broker's process id
#   kafka.sh bin                          directory with kafka-topics, kafka-console-consumer, ... (also NAME.sh)
#   kafka.sh libs                         class path of the clients and tools, for own Java programs
#   kafka.sh java                         the java binary in use
#
#   --port P    client port, default 19092; the controller takes P+1
#   --name N    several nodes can live side by side, default "kafka"
#   --dir D     where this node keeps data and log, default $LEAT_CACHE/run/NAME
#   --heap H    Java heap, default 2g
#   --fresh     drop old data first
#   -c K=V      a line for server.properties, may be repeated
#
# Environment: LEAT_CACHE (default ~/.cache/leat) keeps what was installed. JAVA overrides the
# newest JDK found. KAFKA_VERSION and KAFKA_TOOLS_VERSION override the releases: the tools jar of
# 4.4.0 is not published though its broker is, and the tools of 4.3.1 work with it.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cache=${LEAT_CACHE:-$HOME/.cache/leat}
version=${KAFKA_VERSION:-4.4.0}
tools_version=${KAFKA_TOOLS_VERSION:-4.3.1}
scala=2.13
log4j=2.25.3
home=$cache/kafka-$version
broker_jars=$home/broker
tools_jars=$home/tools-$tools_version

say() { printf '%s\n' "$*" >&2; }
die() { say "kafka.sh: $*"; exit 1; }

[ $# -gt 0 ] || die "what? install, start, stop, pid, bin, libs or java"
action=$1; shift
port=19092 name=kafka dir='' heap=2g fresh=0 settings=()
while [ $# -gt 0 ]; do
    case $1 in
    --port) port=$2; shift 2 ;;
    --name) name=$2; shift 2 ;;
    --dir) dir=$2; shift 2 ;;
    --heap) heap=$2; shift 2 ;;
    --fresh) fresh=1; shift ;;
    -c) settings+=("$2"); shift 2 ;;
    *) die "unknown argument $1" ;;
    esac
done
node=${dir:-$cache/run/$name}

# The newest JDK of those installed side by side; what is on PATH need not be it.
newest_java() {
    if [ -n "${JAVA:-}" ]; then echo "$JAVA"; return; fi
    local candidate major best='' best_major=0 siblings=''
    if command -v java >/dev/null; then
        siblings=$(dirname "$(dirname "$(dirname "$(readlink -f "$(command -v java)")")")")
    fi
    for candidate in ${siblings:+"$siblings"/*/bin/java} /usr/lib/jvm/*/bin/java; do
        [ -x "$candidate" ] || continue
        major=$("$candidate" -version 2>&1 | awk -F'"' 'NR == 1 { split($2, v, "."); print v[1] }')
        if [ "${major:-0}" -gt "$best_major" ] 2>/dev/null; then best=$candidate best_major=$major; fi
    done
    [ -n "$best" ] || die "no JDK found; apt-get install default-jre-headless, or set JAVA"
    echo "$best"
}

# start_time PID: the kernel's start time, so that a process id used again is not taken for ours.
# Nothing for a zombie: it is dead, only nobody has fetched its status yet.
start_time() { sed 's/^.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" { print $20 }'; }
running_pid() {
    local pid started
    [ -f "$node/pid" ] || return 1
    read -r pid started <"$node/pid" || return 1
    [ -n "$started" ] && [ "$(start_time "$pid")" = "$started" ] || return 1
    echo "$pid"
}
stop_node() {
    local pid tenth
    pid=$(running_pid) || { rm -f "$node/pid"; return 0; }
    kill -TERM "$pid"
    for ((tenth = 0; tenth < 300; tenth++)); do
        running_pid >/dev/null || break
        sleep 0.1
    done
    if running_pid >/dev/null; then kill -KILL "$pid"; fi
    rm -f "$node/pid"
}
accepts() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

fetch() { "$here/maven.sh" "$@" || exit 1; }

class_path() { printf '%s/*' "$1"; }

# tool NAME CLASS: one script for each of Kafka's command-line programs. Most run for a second,
# so the JIT stops at its first level; the load generators get it whole.
tool() {
    local jit='-XX:TieredStopAtLevel=1 -XX:+UseSerialGC'
    case $1 in *perf-test | kafka-e2e-latency) jit='' ;; esac
    cat >"$home/bin/$1.new" <<TOOL
#!/bin/bash
# KAFKA_HEAP_OPTS and KAFKA_OPTS are honoured.
exec "\${JAVA:-$java}" \${KAFKA_HEAP_OPTS:--Xmx512m} $jit -Xshare:auto \\
    -Dlog4j2.configurationFile="$home/log-tools.xml" \${KAFKA_OPTS:-} -cp "$(class_path "$tools_jars")" $2 "\$@"
TOOL
    chmod +x "$home/bin/$1.new"
    mv "$home/bin/$1.new" "$home/bin/$1"
    ln -sf "$1" "$home/bin/$1.sh"
}

log_config() { # log_config FILE STREAM LEVEL
    cat >"$1" <<XML
<Configuration status="warn"><Appenders><Console name="console" target="$2">
<PatternLayout pattern="%d %p %c %m%n"/></Console></Appenders>
<Loggers><Root level="$3"><AppenderRef ref="console"/></Root></Loggers></Configuration>
XML
}

install_all() {
    mkdir -p "$home"
    # Two callers at once must not write the same files.
    exec 9>"$home/.lock"
    flock 9
    local kafka=org.apache.kafka logger=org.apache.logging.log4j:log4j-slf4j-impl:$log4j
    fetch "$broker_jars" $kafka:kafka_$scala:"$version" "$logger"
    fetch "$tools_jars" $kafka:kafka_$scala:"$tools_version" $kafka:kafka-tools:"$tools_version" \
        $kafka:kafka-shell:"$tools_version" "$logger"
    if [ ! -e "$home/bin/.complete" ] || [ "${BASH_SOURCE[0]}" -nt "$home/bin/.complete" ]; then
        mkdir -p "$home/bin"
        log_config "$home/log-broker.xml" SYSTEM_OUT info
        log_config "$home/log-tools.xml" SYSTEM_ERR warn
        local script class
        while read -r script class; do tool "$script" "$class"; done <<LIST
kafka-topics org.apache.kafka.tools.TopicCommand
kafka-configs kafka.admin.ConfigCommand
kafka-acls org.apache.kafka.tools.AclCommand
kafka-broker-api-versions org.apache.kafka.tools.BrokerApiVersionsCommand
kafka-client-metrics org.apache.kafka.tools.ClientMetricsCommand
kafka-cluster org.apache.kafka.tools.ClusterTool
kafka-console-producer org.apache.kafka.tools.ConsoleProducer
kafka-console-consumer org.apache.kafka.tools.consumer.ConsoleConsumer
kafka-console-share-consumer org.apache.kafka.tools.consumer.ConsoleShareConsumer
kafka-consumer-groups org.apache.kafka.tools.consumer.group.ConsumerGroupCommand
kafka-share-groups org.apache.kafka.tools.consumer.group.ShareGroupCommand
kafka-streams-groups org.apache.kafka.tools.streams.StreamsGroupCommand
kafka-groups org.apache.kafka.tools.GroupsCommand
kafka-delegation-tokens org.apache.kafka.tools.DelegationTokenCommand
kafka-delete-records org.apache.kafka.tools.DeleteRecordsCommand
kafka-dump-log org.apache.kafka.tools.DumpLogSegments
kafka-e2e-latency org.apache.kafka.tools.EndToEndLatency
kafka-features org.apache.kafka.tools.FeatureCommand
kafka-get-offsets org.apache.kafka.tools.GetOffsetShell
kafka-leader-election org.apache.kafka.tools.LeaderElectionCommand
kafka-log-dirs org.apache.kafka.tools.LogDirsCommand
kafka-metadata-quorum org.apache.kafka.tools.MetadataQuorumCommand
kafka-producer-perf-test org.apache.kafka.tools.ProducerPerformance
kafka-consumer-perf-test org.apache.kafka.tools.ConsumerPerformance
kafka-share-consumer-perf-test org.apache.kafka.tools.ShareConsumerPerformance
kafka-reassign-partitions org.apache.kafka.tools.reassign.ReassignPartitionsCommand
kafka-replica-verification org.apache.kafka.tools.ReplicaVerificationTool
kafka-storage kafka.tools.StorageTool
kafka-streams-application-reset org.apache.kafka.tools.StreamsResetter
kafka-transactions org.apache.kafka.tools.TransactionsCommand
kafka-verifiable-producer org.apache.kafka.tools.VerifiableProducer
kafka-verifiable-consumer org.apache.kafka.tools.VerifiableConsumer
kafka-verifiable-share-consumer org.apache.kafka.tools.VerifiableShareConsumer
LIST
        touch "$home/bin/.complete"
    fi
    exec 9>&-
}

# Kafka's own sample configuration for one node in both roles, with replication 1 throughout.
write_properties() {
    cat <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:$((port + 1))
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))
advertised.listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
num.network.threads=3
num.io.threads=8
socket.send.buffer.bytes=102400
socket.receive.buffer.bytes=102400
socket.request.max.bytes=104857600
log.dirs=$node/data
num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
log.retention.hours=168
log.segment.bytes=1073741824
log.retention.check.interval.ms=300000
group.initial.rebalance.delay.ms=400
PROPERTIES
    local line
    for line in ${settings[@]+"${settings[@]}"}; do echo "$line"; done
}

start_node() {
    local pid tenth
    if pid=$(running_pid); then
        if [ $fresh = 0 ]; then say "kafka.sh: $name runs already, pid $pid"; echo "127.0.0.1:$port"; return; fi
        stop_node
    fi
    install_all
    if [ $fresh = 1 ]; then rm -rf "$node/data" "$node/log"; fi
    mkdir -p "$node"
    accepts "$port" && die "port $port is taken"
    accepts $((port + 1)) && die "port $((port + 1)), the controller's, is taken"
    write_properties >"$node/server.properties"
    if [ ! -e "$node/data/meta.properties" ]; then
        "$java" -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
            -Dlog4j2.configurationFile="$home/log-tools.xml" -cp "$(class_path "$broker_jars")" \
            kafka.tools.StorageTool format --standalone -t bGVhdC1wZWVyLWthZmthMQ \
            -c "$node/server.properties" >"$node/format.log" 2>&1 ||
            { cat "$node/format.log" >&2; die "formatting $node/data failed"; }
    fi
    # The JVM options of Kafka's own start script, with the heap given here.
    setsid nohup "$java" -Xms"$heap" -Xmx"$heap" -server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 \
        -XX:InitiatingHeapOccupancyPercent=35 -XX:+ExplicitGCInvokesConcurrent \
        -Djava.awt.headless=true ${KAFKA_BROKER_OPTS:-} \
        -Dlog4j2.configurationFile="$home/log-broker.xml" -cp "$(class_path "$broker_jars")" \
        kafka.Kafka "$node/server.properties" >>"$node/log" 2>&1 </dev/null &
    pid=$!
    echo "$pid $(start_time $pid)" >"$node/pid"
    for ((tenth = 0; tenth < 900; tenth++)); do
        accepts "$port" && break
        kill -0 $pid 2>/dev/null || break
        sleep 0.1
    done
    accepts "$port" || { tail -30 "$node/log" >&2; die "$name did not come up, see $node/log"; }
    say "kafka.sh: $name $version, pid $pid, log $node/log"
    echo "127.0.0.1:$port"
}

java=$(newest_java)
case $action in
install) install_all; echo "$home/bin" ;;
start) start_node ;;
stop)
    stop_node
    if [ $fresh = 1 ]; then rm -rf "$node"; fi
    ;;
pid) running_pid || die "$name does not run" ;;
bin) install_all; echo "$home/bin" ;;
libs) install_all; class_path "$tools_jars"; echo ;;
java) echo "$java" ;;
*) die "unknown action $action" ;;
esac
