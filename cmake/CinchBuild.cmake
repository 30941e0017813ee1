# SPDX-License-Identifier: Apache-2.0
# How every part of cinch is compiled, tested and installed. Needs CMake 3.22.

set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_C_VISIBILITY_PRESET hidden)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

set(CINCH_X86 OFF)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$" AND CMAKE_SIZEOF_VOID_P EQUAL 8)
  set(CINCH_X86 ON)
endif()

set(sanitizers "" address thread undefined address,undefined)
if(NOT CINCH_SANITIZE IN_LIST sanitizers)
  message(FATAL_ERROR "CINCH_SANITIZE=${CINCH_SANITIZE}: address, undefined, both with a comma between, thread, or empty")
endif()

add_library(cinch_flags INTERFACE)
target_compile_definitions(cinch_flags INTERFACE _GNU_SOURCE)
target_include_directories(cinch_flags INTERFACE
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include/cinch>)
# Results are the same bits on every CPU only where the compiler neither contracts nor reassociates.
target_compile_options(cinch_flags INTERFACE -ffp-contract=off -fno-math-errno
  -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla
  -Wno-missing-field-initializers)
if(CINCH_WERROR)
  target_compile_options(cinch_flags INTERFACE -Werror)
endif()
if(CINCH_SANITIZE)
  target_compile_options(cinch_flags INTERFACE -fsanitize=${CINCH_SANITIZE} -fno-omit-frame-pointer
    -fno-sanitize-recover=all)
  target_compile_definitions(cinch_flags INTERFACE CINCH_SANITIZED) # tests take fewer cases
  target_link_options(cinch_flags INTERFACE -fsanitize=${CINCH_SANITIZE})
endif()

# cinch_module(NAME SOURCES... [AVX2 SOURCES...]): one layer, an object library cinch_NAME. Sources
# behind AVX2 are compiled for that ISA and called only where the CPU has it.
function(cinch_module name)
  cmake_parse_arguments(ARG "" "" "AVX2" ${ARGN})
  add_library(cinch_${name} OBJECT ${ARG_UNPARSED_ARGUMENTS})
  target_link_libraries(cinch_${name} PUBLIC cinch_flags Threads::Threads)
  if(ARG_AVX2 AND CINCH_X86)
    target_sources(cinch_${name} PRIVATE ${ARG_AVX2})
    set_source_files_properties(${ARG_AVX2} PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma;-mf16c")
  endif()
endfunction()

# cinch_link_optional(TARGET): the libraries that were found.
function(cinch_link_optional target)
  foreach(optional SODIUM EXPAT JANSSON HWLOC IBVERBS)
    if(TARGET PkgConfig::${optional})
      target_link_libraries(${target} PRIVATE PkgConfig::${optional})
    endif()
  endforeach()
endfunction()

# cinch_libraries(MODULES...): libcinch.so with the public names only, and cinch_static with all, for
# the program and the tests. Only the first is installed.
function(cinch_libraries)
  add_library(cinch SHARED)
  add_library(cinch::cinch ALIAS cinch)
  add_library(cinch_static STATIC)
  foreach(lib cinch cinch_static)
    foreach(module ${ARGN})
      target_sources(${lib} PRIVATE $<TARGET_OBJECTS:cinch_${module}>)
    endforeach()
    cinch_link_optional(${lib})
    target_link_libraries(${lib} PRIVATE Threads::Threads ${CMAKE_DL_LIBS} m)
  endforeach()
  target_link_libraries(cinch_static PUBLIC cinch_flags)
  target_include_directories(cinch INTERFACE
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include/cinch>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/cinch>)
  set(map ${PROJECT_SOURCE_DIR}/coll/cinch.map)
  target_link_options(cinch PRIVATE LINKER:--version-script=${map} LINKER:-z,relro,-z,now)
  if(CINCH_SANITIZE)
    # Clang leaves the sanitizer's own names to the program.
    target_link_options(cinch PRIVATE -fsanitize=${CINCH_SANITIZE})
  else()
    target_link_options(cinch PRIVATE LINKER:-z,defs)
  endif()
  set_target_properties(cinch PROPERTIES VERSION ${PROJECT_VERSION}
    SOVERSION ${PROJECT_VERSION_MAJOR} LINK_DEPENDS ${map})
endfunction()

# add_any_test(NAME QUICK TIMEOUT WORDS...): what all tests have in common. Status 77 says that one
# was skipped, its last line why.
function(add_any_test name quick timeout)
  if(NOT timeout)
    set(timeout 300)
  endif()
  add_test(NAME ${name} COMMAND ${ARGN})
  set_tests_properties(${name} PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT ${timeout})
  if(quick)
    set_tests_properties(${name} PROPERTIES LABELS quick)
  endif()
endfunction()

# add_check_test(NAME QUICK TIMEOUT WORDS...): a test that, without Check, is there and is skipped.
function(add_check_test name quick timeout)
  set(command ${ARGN})
  if(NOT CHECK_FOUND)
    set(command sh -c "echo skipped: Check was not found when cinch was configured && exit 77")
  endif()
  add_any_test(${name} "${quick}" "${timeout}" ${command})
endfunction()

# cinch_script_test(NAME [QUICK] [TIMEOUT SECONDS] COMMAND WORDS...): a test that is any command.
function(cinch_script_test name)
  cmake_parse_arguments(ARG "QUICK" "TIMEOUT" "COMMAND" ${ARGN})
  add_any_test(${name} "${ARG_QUICK}" "${ARG_TIMEOUT}" ${ARG_COMMAND})
endfunction()

# cinch_test(NAME [QUICK] [TIMEOUT SECONDS] SOURCES...): one Check program, one test. QUICK ones run
# for every commit. Without Check it is not built.
function(cinch_test name)
  cmake_parse_arguments(ARG "QUICK" "TIMEOUT" "" ${ARGN})
  add_executable(test_${name} ${ARG_UNPARSED_ARGUMENTS})
  target_link_libraries(test_${name} PRIVATE cinch_static PkgConfig::CHECK m)
  add_check_test(${name} "${ARG_QUICK}" "${ARG_TIMEOUT}" test_${name})
endfunction()

# cinch_test_again(NAME TEST [QUICK] [TIMEOUT SECONDS] [ENVIRONMENT VAR=VALUE...] [ARGUMENTS WORDS...]):
# the program of cinch_test(TEST) a second time, called in another way.
function(cinch_test_again name test)
  cmake_parse_arguments(ARG "QUICK" "TIMEOUT" "ENVIRONMENT;ARGUMENTS" ${ARGN})
  add_check_test(${name} "${ARG_QUICK}" "${ARG_TIMEOUT}"
    ${CMAKE_COMMAND} -E env ${ARG_ENVIRONMENT} $<TARGET_FILE:test_${test}> ${ARG_ARGUMENTS})
endfunction()

# libcinch.so, its headers, the program, and what CMake and pkg-config need to find them. Everything
# installed is found relative to where it lies, so a tree may be moved.
function(cinch_install)
  include(CMakePackageConfigHelpers)
  install(TARGETS cinch EXPORT cinchTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(TARGETS cinch_program RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  install(DIRECTORY include/cinch DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
    FILES_MATCHING PATTERN "*.h")

  set(dir ${CMAKE_INSTALL_LIBDIR}/cmake/cinch)
  install(EXPORT cinchTargets NAMESPACE cinch:: DESTINATION ${dir})
  configure_package_config_file(cmake/cinchConfig.cmake.in cinchConfig.cmake
    INSTALL_DESTINATION ${dir})
  write_basic_package_version_file(cinchConfigVersion.cmake COMPATIBILITY SameMinorVersion)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/cinchConfig.cmake
    ${CMAKE_CURRENT_BINARY_DIR}/cinchConfigVersion.cmake DESTINATION ${dir})

  set(dir ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig)
  file(RELATIVE_PATH CINCH_PC_PREFIX ${dir} ${CMAKE_INSTALL_PREFIX})
  file(RELATIVE_PATH CINCH_PC_LIBDIR ${CMAKE_INSTALL_PREFIX} ${CMAKE_INSTALL_FULL_LIBDIR})
  file(RELATIVE_PATH CINCH_PC_INCLUDEDIR ${CMAKE_INSTALL_PREFIX} ${CMAKE_INSTALL_FULL_INCLUDEDIR})
  string(REGEX REPLACE "/$" "" CINCH_PC_PREFIX "${CINCH_PC_PREFIX}")
  configure_file(cmake/cinch.pc.in cinch.pc @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/cinch.pc
    DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endfunction()

# say_found(LABEL PREFIX LACK): a line about an optional library.
function(say_found label prefix lack)
  set(found "no: ${lack}")
  if(TARGET PkgConfig::${prefix})
    set(found "yes (${${prefix}_VERSION})")
  endif()
  message(STATUS "  ${label} ${found}")
endfunction()

# What was found, and what is missing for lack of it.
function(cinch_summary)
  set(check "no: the tests that need it are skipped")
  if(NOT CINCH_BUILD_TESTS)
    set(check "not asked for: CINCH_BUILD_TESTS is off")
  elseif(CHECK_FOUND)
    set(check "yes (${CHECK_VERSION})")
  endif()
  set(x86 "no: reference kernels only on ${CMAKE_SYSTEM_PROCESSOR}")
  if(CINCH_X86)
    set(x86 "yes, used where the CPU has them")
  endif()
  set(dropin "no: it has no entries for ${CMAKE_SYSTEM_PROCESSOR}")
  if(TARGET cinch_dropin)
    set(dropin "yes")
  endif()
  set(build "${CMAKE_BUILD_TYPE}, ${CMAKE_C_COMPILER_ID} ${CMAKE_C_COMPILER_VERSION}")
  if(CINCH_SANITIZE)
    string(APPEND build ", sanitizer: ${CINCH_SANITIZE}")
  endif()
  message(STATUS "cinch ${PROJECT_VERSION} (${build})")
  say_found("libsodium (handshake between hosts):" SODIUM "ranks on other hosts cannot be met")
  say_found("expat (topology files in XML):      " EXPAT "topology files in XML are refused")
  say_found("Jansson (plan files in JSON):       " JANSSON "plan files are refused")
  say_found("hwloc (detection):                  " HWLOC "machines are seen by sysfs only")
  say_found("libibverbs (detection, verbs):      " IBVERBS "HCAs are seen by sysfs only")
  say_found("UCX 1.13 or newer (transport):      " UCX "no transport ucx; tcp goes between hosts")
  message(STATUS "  Check (tests):                       ${check}")
  message(STATUS "  AVX2 and AVX-512 kernels:            ${x86}")
  message(STATUS "  NCCL drop-in (libnccl.so.2):         ${dropin}")
  message(STATUS "  CUDA kernels:                        ${CINCH_CUDA_FOUND}")
endfunction()
