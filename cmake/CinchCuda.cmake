# SPDX-License-Identifier: Apache-2.0
# The CUDA kernels and their check, where nvcc is found: in the PATH, $CUDACXX, $CUDA_HOME or
# /usr/local/cuda. libcinch then contains the kernels and CUDA's runtime, which loads the driver when it
# is first called.

option(CINCH_CUDA "Compile the CUDA kernels where nvcc is found" ON)
set(CINCH_CUDA_ARCHITECTURES "" CACHE STRING
  "What the CUDA kernels are compiled for, as CMAKE_CUDA_ARCHITECTURES; empty: all")

# Results are the host's bits only without contraction; denormals are kept unless asked otherwise.
set(CINCH_CUDA_ROUNDING --fmad=false)

# cinch_find_cuda(): in CINCH_CUDA_FOUND what the summary says. Sanitizers are for the host's code.
macro(cinch_find_cuda)
  set(CINCH_CUDA_FOUND "not asked for: CINCH_CUDA is off")
  if(CINCH_CUDA AND CINCH_SANITIZE)
    set(CINCH_CUDA_FOUND "no: not with a sanitizer")
  elseif(CINCH_CUDA)
    set(CINCH_CUDA_FOUND "no: nvcc was not found, or needs a C++ compiler that is not there")
    find_program(CINCH_NVCC nvcc HINTS ENV CUDACXX ENV CUDA_HOME PATHS /usr/local/cuda
      PATH_SUFFIXES bin)
    include(CheckLanguage)
    check_language(CXX)
    if(CINCH_NVCC AND CMAKE_CXX_COMPILER)
      execute_process(COMMAND ${CINCH_NVCC} --version OUTPUT_VARIABLE cinch_nvcc_says ERROR_QUIET)
      if(cinch_nvcc_says MATCHES "release [0-9.]+, V([0-9]+\\.[0-9]+\\.[0-9]+)")
        set(CINCH_NVCC_VERSION ${CMAKE_MATCH_1})
        cinch_cuda_architectures()
        set(CMAKE_CUDA_COMPILER ${CINCH_NVCC})
        enable_language(CUDA)
        find_library(CINCH_CUDART cudart_static REQUIRED
          HINTS ${CMAKE_CUDA_IMPLICIT_LINK_DIRECTORIES})
        set(CINCH_CUDA_FOUND "yes (${CINCH_NVCC_VERSION}), compiled into libcinch")
      endif()
    endif()
  endif()
endmacro()

# Machine code for what this nvcc knows of 8.0, 9.0 and 10.0, and PTX of the last for what comes after.
macro(cinch_cuda_architectures)
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 100)
  if(CINCH_NVCC_VERSION VERSION_LESS 12.8)
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90)
  endif()
  if(CINCH_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES ${CINCH_CUDA_ARCHITECTURES})
  endif()
endmacro()

# cinch_cuda_targets(): the kernels, into both libraries, and perf/gpu_*. Kernels call no function of
# another file, so there is nothing to link on the device's side, and the host's linker makes the library.
# Of C++ it needs nothing at run time: no exceptions, and the guards of the launch stubs' variables, which
# only <<<>>> would call, are left out.
function(cinch_cuda_targets)
  if(NOT CMAKE_CUDA_COMPILER_LOADED)
    return()
  endif()
  file(GLOB kernels CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/compress/cuda/*.cu)
  add_library(cinch_cuda_kernels OBJECT ${kernels})
  set(libs cinch cinch_static)
  if(TARGET cinch_dropin)
    list(APPEND libs cinch_dropin)
  endif()
  foreach(lib ${libs})
    target_sources(${lib} PRIVATE $<TARGET_OBJECTS:cinch_cuda_kernels>)
    set_target_properties(${lib} PROPERTIES LINKER_LANGUAGE C)
    target_link_libraries(${lib} PRIVATE ${CINCH_CUDART} rt)
  endforeach()
  # Never unloaded: threads that serve streams may be in it, and CUDA's runtime.
  list(REMOVE_ITEM libs cinch_static)
  foreach(lib ${libs})
    target_link_options(${lib} PRIVATE LINKER:--as-needed LINKER:-z,nodelete)
  endforeach()
  file(GLOB check CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/perf/gpu_check*.cu)
  add_executable(gpu_check ${check} ${PROJECT_SOURCE_DIR}/perf/gpu_check_host.c
    ${PROJECT_SOURCE_DIR}/perf/json.c)
  set(overlap gpu_overlap.c overlap.c product.c gpu.c json.c model_gemm.c)
  list(TRANSFORM overlap PREPEND ${PROJECT_SOURCE_DIR}/perf/)
  add_library(cinch_gpu_product OBJECT ${PROJECT_SOURCE_DIR}/perf/gpu_product.cu)
  add_executable(gpu_overlap ${overlap} $<TARGET_OBJECTS:cinch_gpu_product>)
  target_sources(cinch_program PRIVATE $<TARGET_OBJECTS:cinch_gpu_product>)
  target_link_libraries(gpu_check PRIVATE $<TARGET_FILE:cinch_static> Threads::Threads
    ${CMAKE_DL_LIBS} m)
  cinch_link_optional(gpu_check)
  add_dependencies(gpu_check cinch_static)
  set(collectives gpu_collectives.c measure.c buffers.c gpu.c gpu_buffers.c operations.c data.c check.c
    check_float.c overlap.c product.c options.c json.c model_gemm.c)
  list(TRANSFORM collectives PREPEND ${PROJECT_SOURCE_DIR}/perf/)
  add_executable(gpu_collectives ${collectives} $<TARGET_OBJECTS:cinch_gpu_product>)
  foreach(program dropin probe)
    add_executable(gpu_${program} ${PROJECT_SOURCE_DIR}/perf/gpu_${program}.c
      ${PROJECT_SOURCE_DIR}/perf/gpu.c ${PROJECT_SOURCE_DIR}/perf/json.c)
  endforeach()
  target_include_directories(gpu_probe SYSTEM PRIVATE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
  foreach(program overlap collectives dropin probe)
    target_link_libraries(gpu_${program} PRIVATE cinch_static m)
    set_target_properties(gpu_${program} PROPERTIES LINKER_LANGUAGE C)
  endforeach()
  set_target_properties(gpu_check gpu_overlap gpu_collectives gpu_dropin gpu_probe PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/perf)
  foreach(target cinch_cuda_kernels cinch_gpu_product gpu_check)
    set_target_properties(${target} PROPERTIES CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON
      CUDA_RUNTIME_LIBRARY Static)
    target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/include)
    target_compile_options(${target} PRIVATE 
      $<$<COMPILE_LANGUAGE:CUDA>:${CINCH_CUDA_ROUNDING} -Xcompiler=-ffp-contract=off,-fno-exceptions,-fno-threadsafe-statics,-Wall>)
    if(CINCH_WERROR)
      target_compile_options(${target} PRIVATE
        $<$<COMPILE_LANGUAGE:CUDA>:--Werror=all-warnings -Xcompiler=-Werror>)
    endif()
  endforeach()
endfunction()
