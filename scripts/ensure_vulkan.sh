#!/usr/bin/env bash
# Makes sure that there is a Vulkan driver, so that wgrad finds an adapter: a GPU's own, or Mesa's software driver.
#
#     bash scripts/ensure_vulkan.sh        checks, installs on Debian and Ubuntu, and otherwise says what to run
#     source scripts/ensure_vulkan.sh      defines ensure_vulkan, which does the same and returns 0 or 1
#
# macOS (Metal) and Windows (DX12) bring a driver with the system, so there is nothing to do.
# Written for bash 3.2, which macOS still has.

# Whether the Vulkan loader is installed.
has_vulkan_loader() {
    local folder
    if command -v ldconfig >/dev/null 2>&1 && ldconfig -p 2>/dev/null | grep 'libvulkan\.so\.1' >/dev/null; then
        return 0
    fi
    # Where ldconfig keeps no list (Alpine), is not in a user's path (Debian), or does not know the folder (Nix).
    for folder in /usr/lib /usr/lib64 /usr/local/lib /lib /usr/lib/*-linux-gnu* \
        $(printf '%s' "${LD_LIBRARY_PATH:-}" | tr ':' ' '); do
        if [ -e "$folder/libvulkan.so.1" ]; then return 0; fi
    done
    return 1
}

# Whether a driver is registered with the loader, or named by the user.
has_vulkan_driver() {
    local file
    if [ -n "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}${VK_ADD_DRIVER_FILES:-}" ]; then return 0; fi
    for file in /usr/share/vulkan/icd.d/*.json /usr/local/share/vulkan/icd.d/*.json /etc/vulkan/icd.d/*.json \
        "${XDG_DATA_HOME:-${HOME:-}/.local/share}"/vulkan/icd.d/*.json; do
        if [ -e "$file" ]; then return 0; fi
    done
    return 1
}

# Runs a command as root, by sudo where needed. Fails where neither is possible.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo "$@"
    else
        return 1
    fi
}

# Says what a person has to run on a Linux that we do not install on.
say_how_to_install() {
    local command
    if command -v apt-get >/dev/null 2>&1; then
        command="sudo apt-get install libvulkan1 mesa-vulkan-drivers"
    elif command -v dnf >/dev/null 2>&1; then
        command="sudo dnf install vulkan-loader mesa-vulkan-drivers"
    elif command -v pacman >/dev/null 2>&1; then
        command="sudo pacman -S vulkan-icd-loader vulkan-swrast"
    elif command -v zypper >/dev/null 2>&1; then
        command="sudo zypper install libvulkan1 libvulkan_lvp"
    elif command -v apk >/dev/null 2>&1; then
        command="apk add vulkan-loader mesa-vulkan-swrast    (as root)"
    else
        command="your package manager, for the Vulkan loader (libvulkan.so.1) and Mesa's Vulkan drivers"
    fi
    echo "No Vulkan driver was found. Install your GPU's, or Mesa's (with a software driver), by:" >&2
    echo "    $command" >&2
}

ensure_vulkan() {
    case "$(uname -s)" in
    Linux) ;;
    Darwin)
        echo "Metal is part of macOS: there is no driver to install."
        return 0
        ;;
    MINGW* | MSYS* | CYGWIN*)
        echo "DX12 is part of Windows: there is no driver to install."
        return 0
        ;;
    *)
        # Another Unix: what is found is used, what is missing is named, and wgrad itself says whether there is an adapter.
        if ! has_vulkan_loader || ! has_vulkan_driver; then say_how_to_install; fi
        return 0
        ;;
    esac
    if has_vulkan_loader && has_vulkan_driver; then return 0; fi

    if command -v apt-get >/dev/null 2>&1; then
        echo "No Vulkan driver was found: installing libvulkan1 and mesa-vulkan-drivers with apt-get."
        if as_root apt-get update &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
                libvulkan1 mesa-vulkan-drivers &&
            has_vulkan_loader && has_vulkan_driver; then
            return 0
        fi
        echo "That did not work." >&2
    fi
    say_how_to_install
    return 1
}

# Called, not sourced.
if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    ensure_vulkan
fi
