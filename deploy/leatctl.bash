# Completion of leatctl and leat for bash. Keys come from the running node, else from `leat --help`.
_leat_known_keys() {
    leat --help 2>/dev/null | sed -n 's/^  \([a-z][a-z0-9_.]*\) = .*/\1/p'
}
_leat_keys() {
    local keys
    keys=$(leatctl "$@" -a 2>/dev/null | cut -d' ' -f1)
    echo "${keys:-$(_leat_known_keys)}"
}

_leatctl() {
    local cur=${COMP_WORDS[COMP_CWORD]} addr=() i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
        -A | --addr) addr=(-A "${COMP_WORDS[i + 1]}") ;;
        esac
    done
    local -A words=([store]="du verify --json" [du]="-p --partitions --json" [verify]="--rate --stop --json"
        [topic]="clone")
    if [[ " ${COMP_WORDS[*]:1:COMP_CWORD-1} " == *" clone "* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "--at" -- "$cur")
        return
    fi
    if [[ " ${COMP_WORDS[*]:1:COMP_CWORD-1} " =~ " "(store|topic)" " ]]; then
        mapfile -t COMPREPLY < <(compgen -W "${words[${COMP_WORDS[COMP_CWORD - 1]}]-}" -- "$cur")
        return
    fi
    case $cur in
    -*) mapfile -t COMPREPLY < <(compgen -W "-A --addr -a --all -w --write -r --reset -n --values \
        -d --describe -e --ignore -h --help -V --version" -- "$cur") ;;
    *) mapfile -t COMPREPLY < <(compgen -W "status metrics health cost store topic $(_leat_keys "${addr[@]}")" -- "$cur")
       [[ " ${COMP_WORDS[*]} " == *" -w "* ]] && compopt -o nospace && COMPREPLY=("${COMPREPLY[@]/%/=}") ;;
    esac
}

_leat() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
    case $prev in
    -c | --config) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
    -w) compopt -o nospace
        mapfile -t COMPREPLY < <(compgen -S = -W "$(_leat_known_keys)" -- "$cur") ;;
    *) mapfile -t COMPREPLY < <(compgen -W "-c --config -w -h --help -V --version --check-config \
        --print-config-reference --recover-from --force" -- "$cur") ;;
    esac
}

complete -F _leatctl leatctl
complete -F _leat leat
